"""Every scalar operation from scratch, in numbers of any precision, under any convention; no code of refdiff's rooms.

    from refdiff.golden.reference.answer import answer
    answer("step", {"sampler": "ddim", ...}, numbers.exact(50), final_alpha="abar_0")   -> {"x": ...}
"""
