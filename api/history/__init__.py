"""The hot history: each of the API's Lua scripts (api/scripts/) is called by one function of a module here."""
