"""Package `inference`: the Open Inference Protocol, generated, in a descriptor pool of its own."""
