from django.shortcuts import redirect, render

from liveblog.models import BlogUpdate


def liveblog(request):
    """The entries, the newest first; a POST adds one."""
    if request.method == "POST":
        if content := request.POST.get("content", "").strip():
            BlogUpdate.objects.create(content=content[:10_000])
        return redirect("liveblog")
    return render(
        request, "liveblog/index.html", {"updates": BlogUpdate.objects.order_by("-pk")[:50]}
    )
