package clienttest

import (
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

// MakePod returns a small pod that the server accepts.
func MakePod(name string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "main", Image: "busybox"}}, RestartPolicy: corev1.RestartPolicyNever},
	}
}

// MakeLargePod returns a pod with much of what the API can express: pointers, quantities, lists merged by key, maps and unions.
func MakeLargePod(name string) *corev1.Pod {
	p := MakePod(name)
	p.Labels = map[string]string{"app": "large", "tier": "test"}
	p.Annotations = map[string]string{"note": "a\nb"}
	p.Finalizers = nil
	p.Spec.InitContainers = []corev1.Container{{Name: "init", Image: "busybox:1", Command: []string{"true"}}}
	p.Spec.Volumes = []corev1.Volume{
		{Name: "scratch", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{SizeLimit: ptr.To(resource.MustParse("1024Mi"))}}},
		{Name: "config", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{
			LocalObjectReference: corev1.LocalObjectReference{Name: "c"}, Optional: ptr.To(true)}}},
	}
	c := &p.Spec.Containers[0]
	c.Command, c.Args = []string{"sh", "-c"}, []string{"sleep 1"}
	c.Env = []corev1.EnvVar{
		{Name: "A", Value: "1"},
		{Name: "B", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.name"}}},
	}
	c.Ports = []corev1.ContainerPort{{ContainerPort: 80}, {ContainerPort: 443, Name: "tls"}}
	c.Resources = corev1.ResourceRequirements{
		Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1000m"), corev1.ResourceMemory: resource.MustParse("1024Ki")},
		Limits:   corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("2000m"), corev1.ResourceMemory: resource.MustParse("0.5Gi")},
	}
	c.VolumeMounts = []corev1.VolumeMount{{Name: "scratch", MountPath: "/tmp"}}
	p.Spec.SecurityContext = &corev1.PodSecurityContext{RunAsUser: ptr.To[int64](1000), FSGroup: ptr.To[int64](2000)}
	p.Spec.Tolerations = []corev1.Toleration{{Key: "k", Operator: corev1.TolerationOpExists, TolerationSeconds: ptr.To[int64](10), Effect: corev1.TaintEffectNoExecute}}
	p.Spec.HostNetwork = false
	p.Spec.TerminationGracePeriodSeconds = ptr.To[int64](7)
	return p
}

// MakeConfigMap returns a config map with one entry.
func MakeConfigMap(name string) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}, Data: map[string]string{"key": "value"}}
}

// MakeJob returns a job of one pod.
func MakeJob(name string) *batchv1.Job {
	return &batchv1.Job{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       batchv1.JobSpec{Template: corev1.PodTemplateSpec{Spec: MakePod("").Spec}},
	}
}

func (s *Session) createPod(p *corev1.Pod) *corev1.Pod {
	s.Helper()
	out, err := s.Pods().Create(s.Ctx, p, metav1.CreateOptions{})
	s.Must(err)
	return out
}

// createBoundPod makes a pod that is assigned to a node, so that its deletion is graceful.
func (s *Session) createBoundPod(name string) *corev1.Pod {
	s.Helper()
	p := MakePod(name)
	p.Spec.NodeName = "some-node"
	return s.createPod(p)
}

func (s *Session) createConfigMap(cm *corev1.ConfigMap) *corev1.ConfigMap {
	s.Helper()
	out, err := s.ConfigMaps().Create(s.Ctx, cm, metav1.CreateOptions{})
	s.Must(err)
	return out
}
