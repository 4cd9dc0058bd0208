package runtimepod

import (
	"strconv"
	"time"

	v1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// FromSandbox converts a sandbox's status.
func FromSandbox(s *runtimeapi.PodSandboxStatus) Sandbox {
	sandbox := Sandbox{
		ID:        s.GetId(),
		Attempt:   s.GetMetadata().GetAttempt(),
		Ready:     s.GetState() == runtimeapi.PodSandboxState_SANDBOX_READY,
		CreatedAt: timeOf(s.GetCreatedAt()),
	}
	if ip := s.GetNetwork().GetIp(); ip != "" {
		sandbox.IPs = append(sandbox.IPs, ip)
	}
	for _, ip := range s.GetNetwork().GetAdditionalIps() {
		sandbox.IPs = append(sandbox.IPs, ip.GetIp())
	}
	return sandbox
}

// FromContainer converts a container's status. sandboxID comes from the list,
// since the status doesn't tell.
func FromContainer(s *runtimeapi.ContainerStatus, sandboxID string) *Container {
	c := &Container{
		ID:         s.GetId(),
		Name:       s.GetLabels()[LabelContainerName],
		SandboxID:  sandboxID,
		State:      stateOf(s.GetState()),
		Definition: s.GetAnnotations()[annotationDefinition],
		Image:      s.GetImage().GetImage(),
		ImageRef:   s.GetImageRef(),
		LogPath:    s.GetLogPath(),
		CreatedAt:  timeOf(s.GetCreatedAt()),
		User:       userOf(s.GetUser()),
		Limits:     LimitsOf(s.GetResources().GetLinux()),
	}
	if user := s.GetImage().GetUserSpecifiedImage(); user != "" {
		c.Image = user
	}
	if n, err := strconv.ParseInt(s.GetAnnotations()[annotationRestarts], 10, 32); err == nil {
		c.RestartCount = int32(n)
	}
	if n, err := strconv.ParseInt(s.GetAnnotations()[annotationRound], 10, 32); err == nil {
		c.Round = int32(n)
	}
	if c.State != Created {
		c.StartedAt = timeOf(s.GetStartedAt())
	}
	if c.State == Exited {
		c.FinishedAt = timeOf(s.GetFinishedAt())
		c.ExitCode = s.GetExitCode()
		c.Reason = s.GetReason()
		c.Message = s.GetMessage()
	}
	return c
}

// LimitsOf picks the limits that can be changed.
func LimitsOf(r *runtimeapi.LinuxContainerResources) Limits {
	return Limits{CPUShares: r.GetCpuShares(), CPUQuota: r.GetCpuQuota(), Memory: r.GetMemoryLimitInBytes()}
}

func stateOf(s runtimeapi.ContainerState) State {
	switch s {
	case runtimeapi.ContainerState_CONTAINER_CREATED:
		return Created
	case runtimeapi.ContainerState_CONTAINER_RUNNING:
		return Running
	case runtimeapi.ContainerState_CONTAINER_EXITED:
		return Exited
	default:
		return Unknown
	}
}

func userOf(u *runtimeapi.ContainerUser) *v1.ContainerUser {
	l := u.GetLinux()
	if l == nil {
		return nil
	}
	return &v1.ContainerUser{Linux: &v1.LinuxContainerUser{
		UID:                l.GetUid(),
		GID:                l.GetGid(),
		SupplementalGroups: l.GetSupplementalGroups(),
	}}
}

// timeOf converts CRI nanoseconds, of which 0 means "not yet".
func timeOf(nanoseconds int64) time.Time {
	if nanoseconds == 0 {
		return time.Time{}
	}
	return time.Unix(0, nanoseconds)
}
