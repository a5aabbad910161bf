# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Equations, functions, tests
#
# Every numbered equation and algorithm of the papers, the functions that compute it, the tests that
# name it, and where the code leaves the print. Nobody keeps these tables by hand: they are read
# from the docstrings and comments of the library, and a test holds `book/equations.yml` against the
# same sources. *Deviation* means that the code does something else than the print, and why.
# *Unstated* means that the print leaves a choice open, and where ours comes from.

# %% tags=["remove-input"]
from pathlib import Path

from IPython.display import HTML, display

from pointseg.bookkit import equations, report

package = Path("../pointseg")
listed = equations.read_map(Path("equations.yml"))
coded, tests = equations.implementations(package), equations.tests_of(Path("../tests"))


def show(*papers):
    """The equations of a paper, then what is left or filled in; a word where there is neither."""
    for head, rows, absent in (
        (
            equations.HEAD,
            equations.equation_rows(listed, coded, tests, papers),
            "No numbered equation.",
        ),
        (equations.REMARK_HEAD, equations.remark_rows(package, papers), "Nothing is left open."),
    ):
        display(HTML(report.table(head, rows, cards=True) if rows else f"<p>{absent}</p>"))


# %% [markdown]
# ## AttentionShift

# %% tags=["remove-input"]
show("AS")

# %% [markdown]
# ## Point2Mask (P2M is the main paper, P2M-S its supplement)

# %% tags=["remove-input"]
show("P2M", "P2M-S")

# %% [markdown]
# ## PSPS

# %% tags=["remove-input"]
show("PSPS")

# %% [markdown]
# ## Panoptic SegFormer

# %% tags=["remove-input"]
show("PSF")

# %% [markdown]
# ## EPLD

# %% tags=["remove-input"]
show("EPLD")

# %% [markdown]
# ## EXITS

# %% tags=["remove-input"]
show("EXITS")

# %% [markdown]
# ## MAL

# %% tags=["remove-input"]
show("MAL")
