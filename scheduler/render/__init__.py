"""Shows plans and states to people: sentences from reasons, text for terminals.

Reads what was decided and never decides. JSON is the plan itself (``Plan.model_dump_json``).
"""
