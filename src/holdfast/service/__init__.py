"""Use cases: one function each; faces translate, this layer decides."""
