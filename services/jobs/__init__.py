"""Jobs: a record and an event log in a database, one worker process each, shared by trainer and converter."""
