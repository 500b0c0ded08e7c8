"""What holds for all tests: none of them is about speed, which a busy machine would decide."""

from hypothesis import settings

settings.register_profile("without deadlines", deadline=None)
settings.load_profile("without deadlines")
