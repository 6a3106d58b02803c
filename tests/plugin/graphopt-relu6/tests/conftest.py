pytest_plugins = ["graphopt.testing.pytest_plugin"]
