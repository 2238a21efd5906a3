"""Tests of the package ``calendars``: nothing here needs Ray, a network or a clock."""
