"""Federation: trades of our JWT-SVID for a provider's short-lived token, one adapter file for each provider."""
