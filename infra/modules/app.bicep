// The function app on the chosen plan, with its settings and, from a release, its code.

param appName string
param planName string
param location string
param tags object

@allowed(['flex', 'consumption', 'premium'])
param plan string

param pythonVersion string
param instanceMemoryMB int
param maximumInstances int
param alwaysReadyInstances int
param httpConcurrency int
param identityId string
param identityClientId string
param hostAccountName string
param packageContainerUrl string
param telemetryConnection string
param workspaceId string
param subnetId string
param isPrivate bool
param endpointSubnetId string
param appZoneId string
param releaseUrl string
param durable string
param schedulerEndpoint string
param dicomSettings object

var isFlex = plan == 'flex'
var sku = {
  flex: { name: 'FC1', tier: 'FlexConsumption' }
  consumption: { name: 'Y1', tier: 'Dynamic' }
  premium: { name: 'EP1', tier: 'ElasticPremium' }
}

// The backend of Durable Functions is chosen in host.json, which the scale controller
// reads from the package: so there is a package for each.
var variant = durable == 'scheduler' ? '-scheduler' : ''
var readyPackage = '${releaseUrl}/ready-package${variant}-py${replace(pythonVersion, '.', '')}.zip'

var commonSettings = {
  AzureWebJobsStorage__accountName: hostAccountName
  AzureWebJobsStorage__credential: 'managedidentity'
  AzureWebJobsStorage__clientId: identityClientId
  AZURE_CLIENT_ID: identityClientId
  APPLICATIONINSIGHTS_CONNECTION_STRING: telemetryConnection
  APPLICATIONINSIGHTS_AUTHENTICATION_STRING: 'ClientId=${identityClientId};Authorization=AAD'
  AzureWebJobsDisableHomepage: 'true'
  FUNCTIONS_REQUEST_BODY_SIZE_LIMIT: '2147483647'
}

var schedulerSettings = durable == 'scheduler' ? {
  DURABLE_TASK_SCHEDULER_CONNECTION_STRING: 'Endpoint=${schedulerEndpoint};Authentication=ManagedIdentity;ClientID=${identityClientId}'
} : {}

// Flex takes these from functionAppConfig and refuses the settings.
var hostSettings = isFlex ? {} : {
  FUNCTIONS_EXTENSION_VERSION: '~4'
  FUNCTIONS_WORKER_RUNTIME: 'python'
  WEBSITE_RUN_FROM_PACKAGE: readyPackage
  AzureFunctionsJobHost__extensions__http__maxConcurrentRequests: string(httpConcurrency)
}

// Streaming needs functions to be found while the worker starts; 3.13 always does so.
var indexingSettings = pythonVersion == '3.13' ? {} : { PYTHON_ENABLE_INIT_INDEXING: '1' }

var settings = union(commonSettings, schedulerSettings, hostSettings, indexingSettings, dicomSettings)

var flexConfig = {
  runtime: { name: 'python', version: pythonVersion }
  deployment: {
    storage: {
      type: 'blobContainer'
      value: packageContainerUrl
      authentication: {
        type: 'UserAssignedIdentity'
        userAssignedIdentityResourceId: identityId
      }
    }
  }
  scaleAndConcurrency: {
    instanceMemoryMB: instanceMemoryMB
    maximumInstanceCount: maximumInstances
    alwaysReady: alwaysReadyInstances == 0 ? [] : [{ name: 'http', instanceCount: alwaysReadyInstances }]
    triggers: { http: { perInstanceConcurrency: httpConcurrency } }
  }
}

// Premium scales by queues behind private endpoints only if the app itself looks at them.
var networkConfig = {
  vnetRouteAllEnabled: true
  functionsRuntimeScaleMonitoringEnabled: true
}

var siteLimits = {
  flex: {}
  consumption: { functionAppScaleLimit: maximumInstances }
  premium: {
    functionAppScaleLimit: maximumInstances
    minimumElasticInstanceCount: max(1, alwaysReadyInstances)
    preWarmedInstanceCount: 1
    healthCheckPath: '/health/check'
  }
}

resource farm 'Microsoft.Web/serverfarms@2024-11-01' = {
  name: planName
  location: location
  tags: tags
  kind: plan == 'premium' ? 'elastic' : 'functionapp'
  sku: sku[plan]
  properties: union(
    { reserved: true },
    plan == 'premium' ? { maximumElasticWorkerCount: min(maximumInstances, 100) } : {}
  )
}

resource site 'Microsoft.Web/sites@2024-11-01' = {
  name: appName
  location: location
  tags: union(tags, { 'azd-service-name': 'dicom' })
  kind: 'functionapp,linux'
  identity: {
    type: 'UserAssigned'
    userAssignedIdentities: { '${identityId}': {} }
  }
  properties: {
    serverFarmId: farm.id
    httpsOnly: true
    clientAffinityEnabled: false
    keyVaultReferenceIdentity: identityId
    publicNetworkAccess: isPrivate ? 'Disabled' : 'Enabled'
    virtualNetworkSubnetId: empty(subnetId) ? null : subnetId
    functionAppConfig: isFlex ? flexConfig : null
    siteConfig: union(
      {
        minTlsVersion: '1.2'
        scmMinTlsVersion: '1.2'
        ftpsState: 'Disabled'
        http20Enabled: true
        remoteDebuggingEnabled: false
        appSettings: map(items(settings), setting => { name: setting.key, value: setting.value })
      },
      isFlex ? {} : { linuxFxVersion: 'Python|${pythonVersion}' },
      plan == 'premium' && !empty(subnetId) ? networkConfig : {},
      siteLimits[plan]
    )
  }
}

// Nobody deploys or looks in with a password.
resource ftp 'Microsoft.Web/sites/basicPublishingCredentialsPolicies@2024-11-01' = {
  parent: site
  name: 'ftp'
  properties: { allow: false }
}

resource scm 'Microsoft.Web/sites/basicPublishingCredentialsPolicies@2024-11-01' = {
  parent: site
  name: 'scm'
  properties: { allow: false }
}

// Flex: the release is fetched, its requirements are installed on Azure's side, and the
// result goes to the container of packages. Other plans run from readyPackage.
resource code 'Microsoft.Web/sites/extensions@2024-11-01' = if (isFlex && !empty(releaseUrl)) {
  parent: site
  name: 'onedeploy'
  #disable-next-line BCP187
  properties: {
    packageUri: '${releaseUrl}/released-package${variant}.zip'
    remoteBuild: true
  }
  dependsOn: [ftp, scm]
}

resource logs 'Microsoft.Insights/diagnosticSettings@2021-05-01-preview' = {
  name: 'logs'
  scope: site
  properties: {
    workspaceId: workspaceId
    logs: [
      { category: 'FunctionAppLogs', enabled: true }
    ]
  }
}

module endpoint 'endpoint.bicep' = if (isPrivate) {
  name: 'endpoint-app'
  params: {
    endpointName: 'pe-${appName}'
    location: location
    tags: tags
    subnetId: endpointSubnetId
    serviceId: site.id
    groupId: 'sites'
    zoneId: appZoneId
  }
}

output url string = 'https://${site.properties.defaultHostName}'
