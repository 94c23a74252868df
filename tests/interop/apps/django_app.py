"""Returns, as JSON, Django's view of a request: ``python django_app.py runserver ADDRESS``."""

from __future__ import annotations

import sys

from django.conf import settings
from django.core.management import execute_from_command_line
from django.http import HttpRequest, JsonResponse
from django.urls import re_path

settings.configure(DEBUG=True, ROOT_URLCONF=__name__, SECRET_KEY="of a test")


def view(request: HttpRequest) -> JsonResponse:
    """Answer with the framework's view."""
    return JsonResponse(
        {
            "path": request.META["SCRIPT_NAME"] + "|" + request.path_info,
            "method": request.method,
            "scheme": request.scheme,
            "host": request.get_host(),
            "client": request.META["REMOTE_ADDR"],
            "user": request.META.get("REMOTE_USER", ""),
            "fields": dict(request.headers),
        }
    )


urlpatterns = [re_path("", view)]

if __name__ == "__main__":
    execute_from_command_line(sys.argv)
