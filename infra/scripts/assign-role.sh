#!/usr/bin/env bash
# Gives a role of the server to a user, a group or another application, or takes it away.
set -euo pipefail

usage() {
  cat <<'END'
Usage: assign-role.sh --name NAME --role ROLE --to OBJECT-ID [--remove yes]

  --name NAME      display name of the application that stands for the server
  --role ROLE      a name of the roles file
  --to OBJECT-ID   of the user, group or service principal (managed identity)
  --remove yes     take the role away
END
}

name='' role='' to='' remove=no
while [ $# -gt 0 ]; do
  case $1 in
    --name) name=${2:?} ;;
    --role) role=${2:?} ;;
    --to) to=${2:?} ;;
    --remove) remove=${2:?} ;;
    *)
      usage >&2
      exit 2
      ;;
  esac
  shift 2
done
if [ -z "$name" ] || [ -z "$role" ] || [ -z "$to" ]; then
  usage >&2
  exit 2
fi

graph=https://graph.microsoft.com/v1.0
app=$(az ad app list --display-name "$name" --query '[0].appId' --output tsv)
if [ -z "$app" ]; then
  echo "There is no application $name" >&2
  exit 1
fi
principal=$(az ad sp show --id "$app" --query id --output tsv)
role_id=$(az ad sp show --id "$app" --query "appRoles[?value=='$role'].id | [0]" --output tsv)
if [ -z "$role_id" ]; then
  echo "$name has no role $role" >&2
  exit 1
fi

if [ "$remove" = yes ]; then
  query="value[?principalId=='$to' && appRoleId=='$role_id'].id | [0]"
  assignment=$(az rest --method GET --query "$query" --output tsv \
    --url "$graph/servicePrincipals/$principal/appRoleAssignedTo")
  if [ -z "$assignment" ]; then
    echo "$to does not have the role $role" >&2
    exit 1
  fi
  az rest --method DELETE \
    --url "$graph/servicePrincipals/$principal/appRoleAssignedTo/$assignment"
else
  az rest --method POST --headers Content-Type=application/json --output none \
    --url "$graph/servicePrincipals/$principal/appRoleAssignedTo" \
    --body '{"principalId": "'"$to"'", "resourceId": "'"$principal"'", "appRoleId": "'"$role_id"'"}'
fi
