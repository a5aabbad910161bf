"""AttentionShift (CVPR 2023), in the order of the paper.

[AS Sec. 3.1]  querying.py      Token querying: points matched to query tokens, A^S of the matched
               instance_map.py  Instance attention map A^I: Eq. 1
[AS Sec. 3.2]  shift.py         Key-point shift: Eq. 2 to Eq. 7
               filtering.py     Key-point filtering: Alg. 1
[AS Sec. 4]    masks.py         Pseudo boxes, and points that teach masks
               labeller.py      All of the above for a batch: evidence, labels, losses
               method.py        Labeller and Mask R-CNN put together
Beside it: config.py, every switch of the tables; tokens.py, the two products that all of it needs;
token_querying.py, the first stage.
"""
