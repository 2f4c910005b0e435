"""How services reach the API server of a cluster."""

from services.settings import SharedSettings


class ClusterSettings(SharedSettings):
    """What is not in the files that every pod with a service account has."""

    kubernetes_url: str = ""
    """API server without credentials, such as `kubectl proxy`. Empty: as the pod's service account, from
    /var/run/secrets/kubernetes.io/serviceaccount. CONCH_KUBERNETES_URL."""
