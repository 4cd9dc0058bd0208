package server

import (
	"fmt"

	"k8s.io/apiserver/pkg/authentication/serviceaccount"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/client-go/kubernetes"
)

// Whom admission takes errand's components for: those that do the same in a
// cluster, so that policies and webhooks written for one hold here.
var (
	schedulerUser = &user.DefaultInfo{Name: user.KubeScheduler, Groups: []string{user.AllAuthenticated}}
	engineUser    = controllerUser("job-controller")
)

// controllerWrites bounds what each of upstream's controllers writes at once. In
// a cluster its client's rate does; without either, the pod garbage collector
// begins to delete thousands of pods together, and etcd, which takes 5,000
// writes in waiting, refuses those of all others.
const controllerWrites = 64

// controllerUser is a controller of upstream's, by its service account.
func controllerUser(account string) user.Info {
	return serviceaccount.UserInfo("kube-system", account, "")
}

// nodeUser is a node's agent.
func nodeUser(node string) user.Info {
	return &user.DefaultInfo{Name: "system:node:" + node, Groups: []string{user.NodesGroup, user.AllAuthenticated}}
}

// controllerClient is the client of one of upstream's controllers.
func (s *serve) controllerClient(account string) (kubernetes.Interface, error) {
	return s.limitedClientAs(controllerUser(account), controllerWrites)
}

// clientAs is the client of a component that bounds its own writes.
func (s *serve) clientAs(u user.Info) (kubernetes.Interface, error) { return s.limitedClientAs(u, 0) }

func (s *serve) limitedClientAs(u user.Info, maxWrites int) (kubernetes.Interface, error) {
	client, err := s.api.ClientAs(u, maxWrites)
	if err != nil {
		return nil, fmt.Errorf("client of %s: %w", u.GetName(), err)
	}
	return client, nil
}
