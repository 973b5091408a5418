"""Make an installed software environment relocatable: pack it, move it, activate it, run it."""
