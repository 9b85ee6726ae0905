"""Many runs from one command: plans of runs, and studies that ask a question of them."""
