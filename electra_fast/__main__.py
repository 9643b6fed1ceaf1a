"""``python -m electra_fast``, which is also what torchrun starts: ``torchrun --nproc-per-node 8 -m electra_fast …``."""

from electra_fast.cli import main

if __name__ == "__main__":
    main()
