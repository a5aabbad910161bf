# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # One question, written once
#
# Which pixels does a point own? Every method of this book answers with three terms. A point $n$
# asks a *cost* $c_n(x)$ for a pixel $x$; a *price* $u_n$ is taken off all its costs; and where even
# the best offer is above a *refusal* level $\tau$, nobody owns the pixel:
#
# $$\mathrm{owner}(x) = \arg\min_n\; c_n(x) - u_n ,$$
#
# $$\text{refused where}\quad \min_n\; c_n(x) - u_n > \tau .$$
#
# The papers differ in what they put into these three places, and in what teaches the cost. This
# function stands once in the library, and the methods call it.
#
# ```{literalinclude} ../pointseg/ownership.py
# :pyobject: owner
# ```

# %% tags=["remove-cell"]
import matplotlib.pyplot as plt
import torch
from IPython.display import HTML, display

from pointseg.bookkit import design, figures, report
from pointseg.ownership import owner

# %matplotlib inline
figures.compact()

# %% [markdown]
# ## What each term does
#
# Three points in the plane, and the plainest cost there is: the distance. On the left nobody has a
# price. In the middle the first point has one: its borders move outward, and the border between the
# other two stays where it was. On the right, pixels that cost more than the refusal level belong to
# nobody.

# %%
points = torch.tensor([[8.0, 20.0], [30.0, 10.0], [26.0, 32.0]])
y, x = torch.meshgrid(torch.arange(40) + 0.5, torch.arange(40) + 0.5, indexing="ij")
cost = ((torch.stack([x, y]) - points[:, :, None, None]) ** 2).sum(1).sqrt()
price = torch.tensor([8.0, 0.0, 0.0])
plane = {
    "cost alone": owner(cost),
    "a price for the first point": owner(cost, price),
    "refused above 12": owner(cost, tau=12.0),
}

# %% mystnb={"image": {"alt": "Owners of a plane with three points: by distance, with a price, with refusal"}} tags=["remove-input"]
figure, axes = figures.multiples(list(plane), columns=3, size=2.4)
for axis, owners in zip(axes, plane.values()):
    figures.owners(axis, torch.ones(40, 40, 3), owners)
    figures.points(axis, points)
plt.show()

# %% [markdown]
# ## What each method puts there
#
# Each method declares its terms in its own class. This table is made from the declarations, and a
# test holds every method to the properties that it declares.

# %% tags=["remove-input"]
display(HTML(report.table(design.HEAD, design.design_rows(), cards=True)))

# %% [markdown]
# ## Why two networks
#
# A labeller needs the points; at test time there are none. So what it finds is used as if it were
# the truth, to train an ordinary segmentation network: the *student*. In most papers both learn at
# the same time and on the same backbone. A method is a labeller composed with a student, and its
# total loss is one line:
#
# ```{literalinclude} ../pointseg/papers/method.py
# :pyobject: PointSupervised.losses
# ```
#
# Some papers then train a second student on the labels of the first, alone and with full masks in
# mind. In this library that is a second *stage* of the same run; {doc}`reproducing` shows how
# stages are chained.

# %% [markdown]
# ## The way of a point
#
# What happens to a point of AttentionShift, from its file to the loss of a mask, step by step. The
# list stands in the library, and a test runs one training step and holds the list against the
# functions that were called. What a step does is the first line of its docstring; what it gives is
# its annotation.

# %% tags=["remove-input"]
from pointseg.bookkit import way

display(HTML(report.table(way.HEAD, way.way_rows(), cards=True)))
display(HTML(f"<p>{len(way.WAY)} steps in {way.files()} files.</p>"))
