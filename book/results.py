# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Results: every claim, and what our runs say
#
# The table below lists each order of rows that a paper claims and that we have put on trial, then every table of the
# papers as printed. A verdict is computed from the runs in this repository and means exactly this:
#
# - *reproduced*: a run at scale paper came within the tolerance that was fixed before it started;
# - *direction holds*: at scale small the rows stand in the order the paper prints, on the mean over at least three seeds; the
#   sweeps of a single setting (Tables 4, 5, A2 and A3) are decided by one seed, and their chapters say what a seed does;
# - *not reproduced*: there were runs enough, and the print did not hold;
# - *not run*: there were not.
#
# Our numbers come from Bestiary at scale small, and stand in columns of their own. They are no estimate of the printed
# ones: another data set, a backbone of another size, minutes instead of days. A link leads to the run behind a number.

# %% tags=["parameters", "hide-input"]
runs: str = "../runs"
claims: str = "claims.yml"

# %% tags=["remove-input"]
from pathlib import Path

from IPython.display import HTML, Markdown, display

from pointseg.bookkit import report

held = report.trial(Path(claims), Path(runs))
display(HTML(report.orders_table(held)))

# %% [markdown]
# ## All tables of the papers

# %% tags=["remove-input"]
for paper, content in held.claims["papers"].items():
    display(Markdown(f"**{content['title']}** ({content['venue']}; {content['part']})"))
    for table in content["tables"]:
        flags = "".join(f"<li>{flag}</li>" for flag in table.get("flags", []))
        display(HTML(f"<p>Table {table['id']}: {table['caption']}</p>"
                     + report.printed_table(held, paper, table["id"])
                     + (f"<p>Suspect or unexplained in the print:</p><ul>{flags}</ul>" if flags else "")))
