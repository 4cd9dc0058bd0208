package apiserver

import (
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/authorization/authorizerfactory"
	"k8s.io/apiserver/pkg/authorization/union"
	"k8s.io/client-go/informers"
	"k8s.io/kubernetes/plugin/pkg/auth/authorizer/rbac"
)

// newAuthorizer grants system:masters everything and all others what RBAC says.
func newAuthorizer(factory informers.SharedInformerFactory) (authorizer.Authorizer, authorizer.RuleResolver, error) {
	masters := authorizerfactory.NewPrivilegedGroups(user.SystemPrivilegedGroup)
	rules := factory.Rbac().V1()
	byRole := rbac.New(
		&rbac.RoleGetter{Lister: rules.Roles().Lister()},
		&rbac.RoleBindingLister{Lister: rules.RoleBindings().Lister()},
		&rbac.ClusterRoleGetter{Lister: rules.ClusterRoles().Lister()},
		&rbac.ClusterRoleBindingLister{Lister: rules.ClusterRoleBindings().Lister()},
	)
	both, err := union.New(
		union.NamedAuthorizer{AuthorizerName: "kubernetes.io/system-privileged-group", Authorizer: masters},
		union.NamedAuthorizer{AuthorizerName: "rbac", Authorizer: byRole},
	)
	return both, byRole, err
}
