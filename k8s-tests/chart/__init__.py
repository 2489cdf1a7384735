"""The chart without a cluster: rendered by Helm, validated by the schemas of Kubernetes, held against the code."""
