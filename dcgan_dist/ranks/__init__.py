"""The processes of a run: how they meet, agree, stop, and learn who is lost."""
