"""All that knows the host: its folders, devices, offloading, progress, interrupt."""
