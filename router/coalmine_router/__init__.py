"""The canary router: splits, shadows, compares; one control process and any number of proxies."""
