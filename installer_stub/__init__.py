"""The program that runs where the environment goes. Standard library only, Python 3.8 and newer."""
