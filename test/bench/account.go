package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// accountName is the name of the account, of its role and of what binds them.
const accountName = "bench-mayfly"

// An account is a service account with the rights that the manifests give the node plugin. They can be taken away.
type account struct {
	client     kubernetes.Interface
	kubeconfig string
}

// newAccount makes an account, and its kubeconfig in dir. Remove it after use.
func newAccount(ctx context.Context, config *rest.Config, dir string) (a *account, err error) {
	a = &account{kubeconfig: filepath.Join(dir, "account.kubeconfig")}
	if a.client, err = kubernetes.NewForConfig(config); err != nil {
		return nil, fmt.Errorf("make a client: %w", err)
	}
	role, err := manifestRole()
	if err != nil {
		return nil, fmt.Errorf("read the node plugin's rights: %w", err)
	}
	role.Name = accountName
	if _, err := a.client.RbacV1().ClusterRoles().Create(ctx, role, metav1.CreateOptions{}); err != nil {
		return nil, fmt.Errorf("make an account: %w", err)
	}
	accounts := a.client.CoreV1().ServiceAccounts(namespace)
	o := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: accountName}}
	if _, err := accounts.Create(ctx, o, metav1.CreateOptions{}); err != nil {
		return nil, errors.Join(fmt.Errorf("make an account: %w", err), a.remove())
	}
	token, err := accounts.CreateToken(ctx, accountName, &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make the account's token: %w", err), a.remove())
	}
	if err := errors.Join(a.grant(ctx), writeKubeconfig(a.kubeconfig, config, token.Status.Token)); err != nil {
		return nil, errors.Join(err, a.remove())
	}
	return a, nil
}

// manifestRole returns the role of the node plugin: the first document of its manifest.
func manifestRole() (*rbacv1.ClusterRole, error) {
	f, err := os.Open(filepath.Join("..", "..", "manifests", "rbac.yaml"))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	role := &rbacv1.ClusterRole{}
	return role, yaml.NewYAMLOrJSONDecoder(f, 4096).Decode(role)
}

// writeKubeconfig writes a kubeconfig for the API server of config with a token.
func writeKubeconfig(path string, config *rest.Config, token string) error {
	config = rest.CopyConfig(config)
	if err := rest.LoadTLSFiles(config); err != nil {
		return fmt.Errorf("write the account's kubeconfig: %w", err)
	}
	server := &clientcmdapi.Cluster{Server: config.Host, CertificateAuthorityData: config.CAData}
	return clientcmd.WriteToFile(clientcmdapi.Config{
		Clusters:       map[string]*clientcmdapi.Cluster{"bench": server},
		AuthInfos:      map[string]*clientcmdapi.AuthInfo{"bench": {Token: token}},
		Contexts:       map[string]*clientcmdapi.Context{"bench": {Cluster: "bench", AuthInfo: "bench"}},
		CurrentContext: "bench",
	}, path)
}

// grant gives the account its rights.
func (a *account) grant(ctx context.Context) error {
	_, err := a.client.RbacV1().ClusterRoleBindings().Create(ctx, &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: accountName},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: accountName},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Name: accountName, Namespace: namespace}},
	}, metav1.CreateOptions{})
	if err != nil {
		return fmt.Errorf("give the account its rights: %w", err)
	}
	return nil
}

// revoke takes the account's rights away, and waits until the API server knows.
func (a *account) revoke(ctx context.Context) error {
	err := a.client.RbacV1().ClusterRoleBindings().Delete(ctx, accountName, metav1.DeleteOptions{})
	if err != nil {
		return fmt.Errorf("take the account's rights: %w", err)
	}
	return wait(ctx, time.Second)
}

// remove removes the account and all that belongs to it.
func (a *account) remove() error {
	ctx := context.Background() // The bench may have been interrupted.
	var err error
	for _, one := range []func(context.Context, string, metav1.DeleteOptions) error{
		a.client.RbacV1().ClusterRoleBindings().Delete,
		a.client.RbacV1().ClusterRoles().Delete,
		a.client.CoreV1().ServiceAccounts(namespace).Delete,
	} {
		if e := one(ctx, accountName, metav1.DeleteOptions{}); !apierrors.IsNotFound(e) {
			err = errors.Join(err, e)
		}
	}
	return err
}
