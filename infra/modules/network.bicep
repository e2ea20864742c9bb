// A virtual network with a subnet for the app and one for private endpoints, and the DNS
// zones that lead the services' names to those.

param base string
param location string
param tags object
param addressPrefix string

@description('Service that the subnet of the app is given to.')
param appDelegation string

@description('Of each private endpoint: name, serviceId, groupId, zone.')
param services array

param hasAppZone bool

var zones = union(map(services, service => service.zone), hasAppZone ? ['privatelink.azurewebsites.net'] : [])

resource rules 'Microsoft.Network/networkSecurityGroups@2024-07-01' = {
  name: 'nsg-${base}'
  location: location
  tags: tags
  properties: {
    securityRules: [
      {
        name: 'nothing-from-the-internet'
        properties: {
          priority: 4000
          direction: 'Inbound'
          access: 'Deny'
          protocol: '*'
          sourceAddressPrefix: 'Internet'
          sourcePortRange: '*'
          destinationAddressPrefix: '*'
          destinationPortRange: '*'
        }
      }
    ]
  }
}

resource vnet 'Microsoft.Network/virtualNetworks@2024-07-01' = {
  name: 'vnet-${base}'
  location: location
  tags: tags
  properties: {
    addressSpace: { addressPrefixes: [addressPrefix] }
    subnets: [
      {
        name: 'app'
        properties: {
          addressPrefix: cidrSubnet(addressPrefix, 25, 0)
          networkSecurityGroup: { id: rules.id }
          delegations: [
            { name: 'app', properties: { serviceName: appDelegation } }
          ]
        }
      }
      {
        name: 'endpoints'
        properties: {
          addressPrefix: cidrSubnet(addressPrefix, 26, 2)
          networkSecurityGroup: { id: rules.id }
          privateEndpointNetworkPolicies: 'Enabled'
        }
      }
    ]
  }
}

resource zone 'Microsoft.Network/privateDnsZones@2024-06-01' = [
  for zoneName in zones: {
    name: zoneName
    location: 'global'
    tags: tags
  }
]

resource link 'Microsoft.Network/privateDnsZones/virtualNetworkLinks@2024-06-01' = [
  for (zoneName, position) in zones: {
    parent: zone[position]
    name: 'vnet-${base}'
    location: 'global'
    properties: {
      registrationEnabled: false
      virtualNetwork: { id: vnet.id }
    }
  }
]

module endpoint 'endpoint.bicep' = [
  for service in services: {
    name: 'endpoint-${service.name}'
    params: {
      endpointName: 'pe-${service.name}-${base}'
      location: location
      tags: tags
      subnetId: vnet.properties.subnets[1].id
      serviceId: service.serviceId
      groupId: service.groupId
      zoneId: resourceId('Microsoft.Network/privateDnsZones', service.zone)
    }
    dependsOn: [zone]
  }
]

output appSubnetId string = vnet.properties.subnets[0].id
output endpointSubnetId string = vnet.properties.subnets[1].id
output appZoneId string = hasAppZone ? resourceId('Microsoft.Network/privateDnsZones', 'privatelink.azurewebsites.net') : ''
