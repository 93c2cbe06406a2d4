// Package deploy holds what Sluice is deployed with, a systemd unit and the files that
// docker-compose.yml mounts, and the tests that keep them true.
package deploy
