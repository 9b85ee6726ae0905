"""What a run is: the configuration, its checks, presets and axes."""
