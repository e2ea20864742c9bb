// DICOM Functions in one resource group: the function app and everything it needs.
// Closed by default: without an authority and an audience nothing is deployed, no service
// takes keys, and no key is in a setting. docs/deploy.md explains every parameter.

metadata name = 'DICOM Functions'
metadata description = 'A DICOMweb server on Azure Functions, Cosmos DB and Blob Storage'

targetScope = 'resourceGroup'

@description('Short name of the server: letters, digits and hyphens. Names of resources are made of it.')
@minLength(3)
@maxLength(17)
param name string = 'dicom'

@description('Azure region of every resource.')
param location string = resourceGroup().location

@description('Issuer of the tokens of callers, for Entra ID https://login.microsoftonline.com/TENANT/v2.0')
@minLength(12)
param authority string

@description('Accepted audiences of the tokens, comma separated: the application ID URI and the client ID.')
@minLength(3)
param audience string

@description('Hosting plan: flex scales to zero; consumption is the plan that retires on 2028-09-30; premium keeps instances warm.')
@allowed(['flex', 'consumption', 'premium'])
param plan string = 'flex'

@description('Download address of a release, for instance https://example.org/dicom-functions/releases/download/v1.0.0 - empty: no code is deployed, azd or CI does it.')
param releaseUrl string = ''

@description('Version of Python. The consumption plan ends with 3.12.')
@allowed(['3.11', '3.12', '3.13'])
param pythonVersion string = plan == 'consumption' ? '3.12' : '3.13'

@description('Memory of an instance in MB, flex only.')
@allowed([2048, 4096])
param instanceMemoryMB int = 2048

@description('Most instances at a time.')
@minValue(1)
@maxValue(1000)
param maximumInstances int = 40

@description('Instances kept warm for HTTP: 0 scales to zero. Premium keeps at least one.')
@minValue(0)
@maxValue(100)
param alwaysReadyInstances int = 0

@description('HTTP requests that one instance serves at the same time.')
@minValue(1)
@maxValue(1000)
param httpConcurrency int = 16

@description('Greatest RU/s of the index with autoscale, in steps of 1000; 0: serverless, paid by request.')
@minValue(0)
param cosmosAutoscaleRU int = 0

@description('Consistency of the index. Anything weaker than Strong lets one instance miss for a moment what another has answered for.')
@allowed(['Strong', 'BoundedStaleness', 'Session'])
param cosmosConsistency string = 'Strong'

@description('Backend of long-running operations: the storage account of the host, or Durable Task Scheduler.')
@allowed(['storage', 'scheduler'])
param durable string = 'storage'

@description('public: services are reached over their public endpoints, with identities only. private-data: index, blobs and secrets are in a virtual network. private: the server too.')
@allowed(['public', 'private-data', 'private'])
param network string = 'public'

@description('Address range of the virtual network, at least a /24.')
param addressPrefix string = '10.64.0.0/24'

@description('Redundancy of the storage accounts.')
@allowed(['Standard_LRS', 'Standard_ZRS', 'Standard_GRS', 'Standard_GZRS'])
param storageSku string = 'Standard_ZRS'

@description('Days without a change after which an instance moves to the cool tier; 0: never.')
@minValue(0)
param coolAfterDays int = 0

@description('Days without a change after which an instance moves to the cold tier; 0: never.')
@minValue(0)
param coldAfterDays int = 0

@description('Days for which removed blobs can be brought back; added to DICOM_DELETE_DELAY_SECONDS.')
@minValue(1)
@maxValue(365)
param softDeleteDays int = 7

@description('Days that logs, traces and the audit log are kept.')
@minValue(30)
@maxValue(730)
param logRetentionDays int = 90

@description('Data partitions: every data route names its partition. Fixed once there are data.')
param dataPartitions bool = false

@description('File in the package that says what each role may do.')
param rolesFile string = 'roles.sample.json'

@description('Origins whose pages may call the API, comma separated.')
param corsOrigins string = ''

@description('Address under which clients reach the server, where a domain or a proxy of yours is in front; empty: that of the app.')
param publicUrl string = ''

@description('Further app settings, DICOM_... names only; docs/settings.md lists them. No secrets.')
param extraSettings object = {}

@description('Tags of every resource.')
param tags object = {}

var suffix = uniqueString(resourceGroup().id, name)
var base = toLower(name)
var appName = 'func-${base}-${suffix}'
var hasNetwork = network != 'public'
var checkedPlan = hasNetwork && plan == 'consumption' ? fail('The consumption plan has no virtual network; choose flex or premium') : plan
var checkedRelease = empty(releaseUrl) && plan != 'flex' ? fail('Plans other than flex need releaseUrl') : releaseUrl
var indexOptions = cosmosAutoscaleRU == 0 ? {} : { autoscaleSettings: { maxThroughput: cosmosAutoscaleRU } }

resource identity 'Microsoft.ManagedIdentity/userAssignedIdentities@2024-11-30' = {
  name: 'id-${base}-${suffix}'
  location: location
  tags: tags
}

module monitoring 'modules/monitoring.bicep' = {
  name: 'monitoring'
  params: {
    base: '${base}-${suffix}'
    location: location
    tags: tags
    principalId: identity.properties.principalId
    retentionDays: logRetentionDays
  }
}

module hostStorage 'modules/hoststorage.bicep' = {
  name: 'hoststorage'
  params: {
    accountName: 'sth${suffix}'
    location: location
    tags: tags
    sku: storageSku
    principalId: identity.properties.principalId
    isPrivate: hasNetwork
  }
}

module dataStorage 'modules/datastorage.bicep' = {
  name: 'datastorage'
  params: {
    accountName: 'std${suffix}'
    location: location
    tags: tags
    sku: storageSku
    principalId: identity.properties.principalId
    isPrivate: hasNetwork
    coolAfterDays: coolAfterDays
    coldAfterDays: coldAfterDays
    softDeleteDays: softDeleteDays
    workspaceId: monitoring.outputs.workspaceId
  }
}

module index 'modules/index.bicep' = {
  name: 'index'
  params: {
    accountName: 'cosmos-${base}-${suffix}'
    location: location
    tags: tags
    principalId: identity.properties.principalId
    isPrivate: hasNetwork
    isServerless: cosmosAutoscaleRU == 0
    databaseOptions: indexOptions
    consistency: cosmosConsistency
    workspaceId: monitoring.outputs.workspaceId
  }
}

module vault 'modules/vault.bicep' = {
  name: 'vault'
  params: {
    vaultName: 'kv-${suffix}'
    location: location
    tags: tags
    principalId: identity.properties.principalId
    isPrivate: hasNetwork
    workspaceId: monitoring.outputs.workspaceId
  }
}

module scheduler 'modules/scheduler.bicep' = if (durable == 'scheduler') {
  name: 'scheduler'
  params: {
    schedulerName: 'dts-${base}-${suffix}'
    location: location
    tags: tags
    principalId: identity.properties.principalId
  }
}

module privateNetwork 'modules/network.bicep' = if (hasNetwork) {
  name: 'network'
  params: {
    base: '${base}-${suffix}'
    location: location
    tags: tags
    addressPrefix: addressPrefix
    appDelegation: plan == 'flex' ? 'Microsoft.App/environments' : 'Microsoft.Web/serverFarms'
    services: [
      { name: 'host-blob', serviceId: hostStorage.outputs.id, groupId: 'blob', zone: 'privatelink.blob.${environment().suffixes.storage}' }
      { name: 'host-queue', serviceId: hostStorage.outputs.id, groupId: 'queue', zone: 'privatelink.queue.${environment().suffixes.storage}' }
      { name: 'host-table', serviceId: hostStorage.outputs.id, groupId: 'table', zone: 'privatelink.table.${environment().suffixes.storage}' }
      { name: 'data-blob', serviceId: dataStorage.outputs.id, groupId: 'blob', zone: 'privatelink.blob.${environment().suffixes.storage}' }
      { name: 'data-table', serviceId: dataStorage.outputs.id, groupId: 'table', zone: 'privatelink.table.${environment().suffixes.storage}' }
      { name: 'index', serviceId: index.outputs.id, groupId: 'Sql', zone: 'privatelink.documents.azure.com' }
      { name: 'vault', serviceId: vault.outputs.id, groupId: 'vault', zone: 'privatelink.vaultcore.azure.net' }
    ]
    hasAppZone: network == 'private'
  }
}

module app 'modules/app.bicep' = {
  name: 'app'
  params: {
    appName: appName
    planName: 'plan-${base}-${suffix}'
    location: location
    tags: tags
    plan: checkedPlan
    pythonVersion: pythonVersion
    instanceMemoryMB: instanceMemoryMB
    maximumInstances: maximumInstances
    alwaysReadyInstances: alwaysReadyInstances
    httpConcurrency: httpConcurrency
    identityId: identity.id
    identityClientId: identity.properties.clientId
    hostAccountName: hostStorage.outputs.name
    packageContainerUrl: hostStorage.outputs.packageContainerUrl
    telemetryConnection: monitoring.outputs.connectionString
    workspaceId: monitoring.outputs.workspaceId
    subnetId: hasNetwork ? privateNetwork!.outputs.appSubnetId : ''
    isPrivate: network == 'private'
    endpointSubnetId: network == 'private' ? privateNetwork!.outputs.endpointSubnetId : ''
    appZoneId: network == 'private' ? privateNetwork!.outputs.appZoneId : ''
    releaseUrl: checkedRelease
    durable: durable
    schedulerEndpoint: durable == 'scheduler' ? scheduler!.outputs.endpoint : ''
    dicomSettings: union(
      {
        DICOM_STORE: 'azure'
        DICOM_COSMOS_ENDPOINT: index.outputs.endpoint
        DICOM_COSMOS_DATABASE: index.outputs.databaseName
        DICOM_BLOB_ENDPOINT: dataStorage.outputs.blobEndpoint
        DICOM_BLOB_CONTAINER: dataStorage.outputs.containerName
        DICOM_TABLE_ENDPOINT: dataStorage.outputs.tableEndpoint
        DICOM_TABLE: dataStorage.outputs.tableName
        DICOM_KEY_VAULT: vault.outputs.url
        DICOM_DATA_PARTITIONS: string(dataPartitions)
        DICOM_CORS_ORIGINS: corsOrigins
        // Nobody's headers say where we are.
        DICOM_PUBLIC_URL: empty(publicUrl) ? 'https://${appName}.azurewebsites.net' : publicUrl
        DICOM_ROLES_FILE: rolesFile
        // Azure's front end ends TLS and says so, and who calls; only it reaches the app.
        DICOM_TRUST_FORWARDED: 'true'
      },
      extraSettings,
      {
        // After the further settings: nothing there can open the server.
        DICOM_SECURITY: 'true'
        DICOM_ALLOW_ANONYMOUS: 'false'
        DICOM_AUTHORITY: authority
        DICOM_AUDIENCES: audience
      }
    )
  }
}

@description('Base of the DICOMweb API.')
output serviceUrl string = '${app.outputs.url}/v2'

@description('The OHIF viewer, where the package has it.')
output viewerUrl string = '${app.outputs.url}/viewer/'

@description('Answers 200 when everything can be reached.')
output healthUrl string = '${app.outputs.url}/health/check'

output functionAppName string = appName
output identityPrincipalId string = identity.properties.principalId
output cosmosEndpoint string = index.outputs.endpoint
output blobEndpoint string = dataStorage.outputs.blobEndpoint
