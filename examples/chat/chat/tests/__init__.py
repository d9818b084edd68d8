from django.test import override_settings

#: A password's real hash takes a quarter of a second, which is what it is for.
quick_passwords = override_settings(
    PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"]
)
