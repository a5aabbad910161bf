"""AttentionShift (CVPR 2023), in the order of the paper.

[AS Sec. 3.1]  querying.py      Token querying: points matched to query tokens, A^S of the matched
               instance_map.py  Instance attention map A^I: Eq. 1
[AS Sec. 3.2]  shift.py         Key-point shift: Eq. 2 to Eq. 7
               filtering.py     Key-point filtering: Alg. 1
[AS Sec. 4]    masks.py         Pseudo boxes, and points that teach masks
               labeller.py      All of the above for a batch: evidence, labels, losses
               method.py        Labeller and Mask R-CNN put together
Read these in turn. Beside them: objects.py, the things pointed at in a batch; tokens.py, the two
products that all maps need; config.py, every switch of the tables; token_querying.py, the first
stage; frozen.py, the label path on features of another network.

The paper's letters: phi a patch token, d the cosine (`similarity`), psi+ and psi- the mean tokens
of Phi+ and Phi-, psi_k a key-point, Q_k its token, delta(A^P_k) the tokens that it owns (`cells`).
"""
