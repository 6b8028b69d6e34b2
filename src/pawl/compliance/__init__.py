"""The compliance report: what left, who did what, what is kept, under which licences, and how it is all guarded."""
