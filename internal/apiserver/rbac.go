package apiserver

import (
	"context"
	"fmt"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/util/retry"
	"k8s.io/component-helpers/auth/rbac/reconciliation"
	"k8s.io/kubernetes/plugin/pkg/auth/authorizer/rbac/bootstrappolicy"
	"k8s.io/metrics/pkg/apis/metrics"
)

// rbacPolicy returns one task for each of Kubernetes' default roles and
// bindings. A task creates what is missing and adds permissions that an upgrade
// brings; it takes none away, and leaves alone what the user marked with
// rbac.authorization.kubernetes.io/autoupdate: "false".
func rbacPolicy(seed *seeder, client kubernetes.Interface) []task {
	resource := rbacv1.SchemeGroupVersion.WithResource
	var tasks []task
	roles := append(bootstrappolicy.ClusterRoles(), bootstrappolicy.ControllerRoles()...)
	for _, role := range append(roles, metricsReader()) {
		tasks = append(tasks, seed.ensure(resource("clusterroles"), &role, clusterRoleTask(client, role)))
	}
	for _, binding := range append(bootstrappolicy.ClusterRoleBindings(), bootstrappolicy.ControllerRoleBindings()...) {
		tasks = append(tasks, seed.ensure(resource("clusterrolebindings"), &binding, clusterRoleBindingTask(client, binding)))
	}
	for namespace, roles := range bootstrappolicy.NamespaceRoles() {
		for _, role := range roles {
			role.Namespace = namespace
			tasks = append(tasks, seed.ensure(resource("roles"), &role, roleTask(client, role)))
		}
	}
	for namespace, bindings := range bootstrappolicy.NamespaceRoleBindings() {
		for _, binding := range bindings {
			binding.Namespace = namespace
			tasks = append(tasks, seed.ensure(resource("rolebindings"), &binding, roleBindingTask(client, binding)))
		}
	}
	return tasks
}

// metricsReader lets those who may view a namespace see what is used there, as
// metrics-server's manifests do.
func metricsReader() rbacv1.ClusterRole {
	return rbacv1.ClusterRole{
		ObjectMeta: metav1.ObjectMeta{
			Name: "system:aggregated-metrics-reader",
			Labels: map[string]string{
				"rbac.authorization.k8s.io/aggregate-to-admin": "true",
				"rbac.authorization.k8s.io/aggregate-to-edit":  "true",
				"rbac.authorization.k8s.io/aggregate-to-view":  "true",
			},
		},
		Rules: []rbacv1.PolicyRule{{
			APIGroups: []string{metrics.GroupName},
			Resources: []string{"pods", "nodes"},
			Verbs:     []string{"get", "list", "watch"},
		}},
	}
}

func clusterRoleTask(client kubernetes.Interface, role rbacv1.ClusterRole) task {
	return func(context.Context) error {
		return reconcileRole("clusterrole "+role.Name, &reconciliation.ReconcileRoleOptions{
			Role:    reconciliation.ClusterRoleRuleOwner{ClusterRole: &role},
			Client:  reconciliation.ClusterRoleModifier{Client: client.RbacV1().ClusterRoles()},
			Confirm: true,
		})
	}
}

func roleTask(client kubernetes.Interface, role rbacv1.Role) task {
	return func(context.Context) error {
		return reconcileRole("role "+role.Namespace+"/"+role.Name, &reconciliation.ReconcileRoleOptions{
			Role:    reconciliation.RoleRuleOwner{Role: &role},
			Client:  reconciliation.RoleModifier{Client: client.RbacV1(), NamespaceClient: client.CoreV1().Namespaces()},
			Confirm: true,
		})
	}
}

func clusterRoleBindingTask(client kubernetes.Interface, binding rbacv1.ClusterRoleBinding) task {
	return func(context.Context) error {
		return reconcileBinding("clusterrolebinding "+binding.Name, &reconciliation.ReconcileRoleBindingOptions{
			RoleBinding: reconciliation.ClusterRoleBindingAdapter{ClusterRoleBinding: &binding},
			Client:      reconciliation.ClusterRoleBindingClientAdapter{Client: client.RbacV1().ClusterRoleBindings()},
			Confirm:     true,
		})
	}
}

func roleBindingTask(client kubernetes.Interface, binding rbacv1.RoleBinding) task {
	return func(context.Context) error {
		return reconcileBinding("rolebinding "+binding.Namespace+"/"+binding.Name, &reconciliation.ReconcileRoleBindingOptions{
			RoleBinding: reconciliation.RoleBindingAdapter{RoleBinding: &binding},
			Client:      reconciliation.RoleBindingClientAdapter{Client: client.RbacV1(), NamespaceClient: client.CoreV1().Namespaces()},
			Confirm:     true,
		})
	}
}

func reconcileRole(what string, options *reconciliation.ReconcileRoleOptions) error {
	err := retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		_, err := options.Run()
		return err
	})
	if err != nil {
		return fmt.Errorf("default %s: %w", what, err)
	}
	return nil
}

func reconcileBinding(what string, options *reconciliation.ReconcileRoleBindingOptions) error {
	err := retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		_, err := options.Run()
		return err
	})
	if err != nil {
		return fmt.Errorf("default %s: %w", what, err)
	}
	return nil
}
