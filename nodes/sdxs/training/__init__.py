"""How the bundled model was made: pictures, losses, the training run and the export.

Nothing in here is imported when the model runs.
"""
