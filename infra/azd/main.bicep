// Entry of `azd up`: makes the resource group, then what ../main.bicep describes. The
// code follows from the working folder, so no release is named.

targetScope = 'subscription'

@description('Name of the azd environment; the resource group is named after it.')
@minLength(1)
@maxLength(60)
param environmentName string

param location string

@description('Issuer of the tokens of callers: azd env set DICOM_AUTHORITY ...')
@minLength(12)
param authority string

@description('Accepted audiences: azd env set DICOM_AUDIENCE ...')
@minLength(3)
param audience string

@allowed(['public', 'private-data'])
param network string = 'public'

// azd hands over texts.
@allowed(['true', 'false'])
param dataPartitions string = 'false'

param rolesFile string = 'roles.sample.json'
param cosmosAutoscaleRU string = '0'

var tags = { 'azd-env-name': environmentName }

resource group 'Microsoft.Resources/resourceGroups@2025-04-01' = {
  name: 'rg-${environmentName}'
  location: location
  tags: tags
}

module server '../main.bicep' = {
  name: 'dicom-functions'
  scope: group
  params: {
    location: location
    authority: authority
    audience: audience
    network: network
    dataPartitions: bool(dataPartitions)
    rolesFile: rolesFile
    cosmosAutoscaleRU: int(cosmosAutoscaleRU)
    tags: tags
  }
}

output AZURE_RESOURCE_GROUP string = group.name
output SERVICE_DICOM_NAME string = server.outputs.functionAppName
output SERVICE_DICOM_URI string = server.outputs.serviceUrl
output DICOM_VIEWER_URL string = server.outputs.viewerUrl
