from django.test import override_settings

#: Django's default hasher is slow on purpose: a quarter of a second for each password.
quick_passwords = override_settings(
    PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"]
)
