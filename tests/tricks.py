"""Requests that try to get around the check of a partition's name.

The caller may read the partition `radiology` and nothing of `secret`; `{study}` is a
study of the latter.
"""

INTO_SECRET = [
    "/v2/partitions/secret/studies",
    "/v2/partitions/SECRET/studies",
    "/v2/partitions/%73ecret/studies",
    "/v2/partitions/%2573ecret/studies",
    "/v2/partitions/secret%20/studies",
    "/v2/partitions/secret%00/studies",
    "/v2/partitions/secret~/studies",
    "/v2/partitions/radiology%2Fstudies%2F..%2F..%2Fsecret/studies",
    "/v2/partitions/radiology/../secret/studies",
    "/v2/partitions/radiology/%2e%2e/secret/studies",
    "/v2/partitions/radiology%2F..%2Fsecret/studies",
    "/v2/partitions/radiology%252F..%252Fsecret/studies",
    "/v2/partitions/radiology%5C..%5Csecret/studies",
    "/v2/partitions/radiology;secret/studies",
    "/v2/partitions/radiology,secret/studies",
    "/v2/partitions//secret/studies",
    "/v2//partitions/secret/studies",
    "//v2/partitions/secret/studies",
    "/V2/PARTITIONS/Secret/STUDIES",
    "/v2/partitions/secret/studies/{study}/metadata",
    "/v2/partitions/secret/studies/{study}%2Fmetadata",
    "/v2/partitions/radiology/studies/{study}",
    "/v2/partitions/radiology/studies/{study}/metadata",
    "/v2/partitions/radiology/studies/..%2F..%2Fsecret%2Fstudies%2F{study}",
    "/v2/partitions/radiology/studies?partition=secret",
    "/v2/partitions/radiology/studies?partitionName=secret",
    "/v2/studies",
    "/v2/studies/{study}",
    "/v2/changefeed",
    "/v2/partitions",
]
HEADERS = [
    {},
    {"X-Original-URL": "/v2/partitions/secret/studies"},
    {"X-Rewrite-URL": "/v2/partitions/secret/studies"},
    {"X-Forwarded-Prefix": "/v2/partitions/secret"},
    {"X-HTTP-Method-Override": "OPTIONS", "X-Method-Override": "OPTIONS"},
    {"X-Forwarded-For": "127.0.0.1", "X-Real-IP": "127.0.0.1"},
    {"X-MS-CLIENT-PRINCIPAL": "eyJyb2xlcyI6WyJhZG1pbiJdfQ=="},
]
