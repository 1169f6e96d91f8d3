"""Views of scores.json: a leaderboard, tables for other programs, and one self-contained page."""
