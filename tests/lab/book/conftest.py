"""Drawn examples have no time limit: how long one takes says how busy the machine is."""

from __future__ import annotations

import hypothesis

hypothesis.settings.register_profile("patient", deadline=None)
hypothesis.settings.load_profile("patient")
