"""`python -m nash_swarm`: the command line, for where the script is not on the path."""

from nash_swarm.cli.start import main

if __name__ == "__main__":
    main()
