"""What every kernel of the course loads: `etc/ipython/ipython_kernel_config.py` names it."""
