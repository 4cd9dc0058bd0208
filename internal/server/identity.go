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
	return s.clientAs(controllerUser(account))
}

func (s *serve) clientAs(u user.Info) (kubernetes.Interface, error) {
	client, err := s.api.ClientAs(u)
	if err != nil {
		return nil, fmt.Errorf("client of %s: %w", u.GetName(), err)
	}
	return client, nil
}
