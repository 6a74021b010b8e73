"""The descriptor pool that the generated code of package `inference` registers in.

tritonclient, kserve and mlserver register the same names in protobuf's default pool, so a process
that imports one of them beside stubs in the default pool dies with "duplicate symbol". Hence a pool
of our own; serialising, pickling, the gRPC stubs and reflection all work from it.
"""

from google.protobuf.descriptor_pool import DescriptorPool

POOL = DescriptorPool()
