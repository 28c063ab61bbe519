"""What is read of the database, by subject: each function asks one question and answers it with named values.

No module here loads SQLAlchemy: ``mmtui ls`` and completion in a shell must start quickly.
"""
