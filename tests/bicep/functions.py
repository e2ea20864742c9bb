"""The functions of Bicep that may be called without a namespace."""

NAMESPACES = {"az", "sys"}
TEXT = """
any array base64 base64ToJson base64ToString bool cidrHost cidrSubnet coalesce concat
contains createObject dataUri dataUriToString dateTimeAdd dateTimeFromEpoch
dateTimeToEpoch deployer deployment empty endsWith environment extensionResourceId
fail filter first flatten format getSecret groupBy guid indexOf int intersection items
join json last lastIndexOf length loadFileAsBase64 loadJsonContent loadTextContent
loadYamlContent managementGroup managementGroupResourceId map mapValues max min newGuid
objectKeys padLeft parseCidr pickZones range reduce replace resourceGroup resourceId
shallowMerge skip sort split startsWith string subscription subscriptionResourceId
substring take tenant tenantResourceId toObject toLower toUpper trim uniqueString union
uri uriComponent uriComponentToString utcNow
"""
FUNCTIONS = frozenset(TEXT.split())
