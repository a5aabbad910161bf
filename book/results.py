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
# This page has three parts: what the label bench says of the papers' claims, what trained students
# say of them, and every table of the papers as printed. Every verdict is computed from the runs in
# this repository.
#
# **The label bench** scores pseudo labels against the truth. A *bed* is a set of images with
# points, something that is trained on them or nothing, and the rows that are scored there. Two rows
# of a bed label the same objects from the same points. Their difference is paired object by object,
# and its 95 % interval treats seeds and images as crossed random effects ({doc}`measuring` shows
# why). The words mean exactly this:
#
# - *holds*: the interval lies above zero for every pair of neighbours in the order;
# - *contradicted*: it lies below zero for one pair at least;
# - *undecided*: the interval contains zero, or there is one seed; the number of seeds that would
#   decide stands beside it;
# - *outside*: the bed misses a *gate*, a score that the claim presupposes; the effect is still
#   printed. Gates are fixed before a bed's runs; that of Point2Mask's bed was set after its first
#   seed;
# - *not run*: a row is missing. A pair that contradicts is never hidden by one that was not run.
#
# **Students** go through the same interval and get the same words. AP and PQ are no means over
# images, so a run keeps what each image adds to its score (jackknife: how far the score moves when
# the image goes); two rows are paired on these. Three words are of students alone:
#
# - *reproduced* and *not reproduced*: a run at scale paper came within the tolerance that was fixed
#   before it started, or did not;
# - *no order claimed*: the row was run, and no paper says beside which other one its number should
#   lie.
#
# Our numbers come from Bestiary at scale small and from photographs at scale photos, and stand in
# columns of their own. They are no estimate of the printed ones: other data, a backbone of another
# size, minutes instead of days. A link leads to the run behind a number.

# %% tags=["parameters", "remove-input"]
runs: str = "../runs"
claims: str = "claims.yml"

# %% tags=["remove-input"]
from pathlib import Path

from IPython.display import HTML, Markdown, display

from pointseg.bookkit import figures, forest, measured, report

# %matplotlib inline
figures.compact()
held = report.trial(Path(claims), Path(runs))
verdicts = held.on_bench

# %% [markdown]
# ## What has been measured
#
# Every bed, and how much of it has been scored; a dash is a bed that has not been run.

# %% tags=["remove-input"]
display(HTML(measured.beds_table(Path(runs))))

# %% [markdown]
# ## What the labels say
#
# A dot is our difference between two neighbours of a claimed order, the line its interval; grey
# where the bed misses a gate or the interval contains zero. A diamond is the paper's difference,
# which is one of AP or PQ of students, and so is a direction here and no scale.

# %% mystnb={"image": {"alt": "Differences between rows with their intervals, the paper's beside them"}} tags=["remove-input"]
_ = forest.figure(verdicts) or display(Markdown("*The label bench has not been run yet.*"))

# %% tags=["remove-input"]
display(HTML(report.bench_verdicts_table(verdicts)))

# %% [markdown]
# The full method on each bed, and how far its score would move (standard deviation) with another
# seed, or with as many other images of the same kind. Where nothing is trained a seed draws the
# points alone; elsewhere it draws them and the training together.

# %% tags=["remove-input"]
headlines = {
    "AttentionShift": ("as-photos", "as-full"),
    "AttentionShift, people": ("as-people", "as-full"),
    "AttentionShift, Bestiary": ("as-bestiary", "as-full"),
    "Point2Mask": ("p2m-frozen", "p2m-tabA1-p2m1-voc"),
    "EPLD": ("epld-frozen", "epld-full"),
    "EXITS, the walk alone": ("exits-walk", "exits-full"),
}
display(HTML(report.spread_table(headlines, "iou", Path(runs))))

# %% [markdown]
# ## What the students say

# %% tags=["remove-input"]
display(HTML(report.orders_table(held)))

# %% [markdown]
# ## All tables of the papers

# %% tags=["remove-input"]
for paper, content in held.claims["papers"].items():
    display(Markdown(f"**{content['title']}** ({content['venue']}; {content['part']})"))
    for table in content["tables"]:
        flags = "".join(f"<li>{flag}</li>" for flag in table.get("flags", []))
        display(
            HTML(
                f"<p>Table {table['id']}: {table['caption']}</p>"
                + report.printed_table(held, paper, table["id"])
                + (f"<p>Suspect or unexplained in the print:</p><ul>{flags}</ul>" if flags else "")
            )
        )
