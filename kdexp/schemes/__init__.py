"""Ways to distill other than from one trained teacher: conf/scheme."""
